"""Our door: what deepmine-auto brings, as strings. Nothing heavy is imported here."""

from collections.abc import Iterable

from deepmine_auto import hookimpl


@hookimpl
def attentions() -> Iterable[str]:
    """Our attention variants."""
    return (
        "deepmine_plugins.attention.adaptive_span:AdaptiveSpan",
        "deepmine_plugins.attention.additive:Additive",
        "deepmine_plugins.attention.alibi:Alibi",
        "deepmine_plugins.attention.bigbird:BigBird",
        "deepmine_plugins.attention.cosformer:CosFormer",
        "deepmine_plugins.attention.coverage:Coverage",
        "deepmine_plugins.attention.differential:Differential",
        "deepmine_plugins.attention.dilated:Dilated",
        "deepmine_plugins.attention.entmax:Entmax",
        "deepmine_plugins.attention.fnet:FNet",
        "deepmine_plugins.attention.forgetting:Forgetting",
        "deepmine_plugins.attention.gated_delta:GatedDelta",
        "deepmine_plugins.attention.gated_linear:GatedLinear",
        "deepmine_plugins.attention.global_window:GlobalWindow",
        "deepmine_plugins.attention.grouped_query:GroupedQuery",
        "deepmine_plugins.attention.hard:Hard",
        "deepmine_plugins.attention.latent_kv:LatentKV",
        "deepmine_plugins.attention.latents:Latents",
        "deepmine_plugins.attention.learned_temperature:LearnedTemperature",
        "deepmine_plugins.attention.linear:Linear",
        "deepmine_plugins.attention.linformer:Linformer",
        "deepmine_plugins.attention.location:Location",
        "deepmine_plugins.attention.mamba2:Mamba2",
        "deepmine_plugins.attention.moba:MoBA",
        "deepmine_plugins.attention.multi_head:MultiHead",
        "deepmine_plugins.attention.multiplicative:Multiplicative",
        "deepmine_plugins.attention.nystrom:Nystrom",
        "deepmine_plugins.attention.output_gate:OutputGate",
        "deepmine_plugins.attention.performer:Performer",
        "deepmine_plugins.attention.qk_norm:QKNorm",
        "deepmine_plugins.attention.query_temperature:QueryTemperature",
        "deepmine_plugins.attention.reformer:Reformer",
        "deepmine_plugins.attention.registers:Registers",
        "deepmine_plugins.attention.relative_bias:RelativeBias",
        "deepmine_plugins.attention.retention:Retention",
        "deepmine_plugins.attention.rotary:Rotary",
        "deepmine_plugins.attention.scalable_softmax:ScalableSoftmax",
        "deepmine_plugins.attention.sigmoid:Sigmoid",
        "deepmine_plugins.attention.sink:Sink",
        "deepmine_plugins.attention.sliding_window:SlidingWindow",
        "deepmine_plugins.attention.soft_cap:SoftCap",
        "deepmine_plugins.attention.strided:Strided",
        "deepmine_plugins.attention.synthesizer:Synthesizer",
        "deepmine_plugins.attention.talking_heads:TalkingHeads",
        "deepmine_plugins.attention.tanh_gate:TanhGate",
        "deepmine_plugins.attention.top_k:TopK",
        "deepmine_plugins.attention.transformer_xl:TransformerXL",
        "deepmine_plugins.attention.visual_sentinel:VisualSentinel",
    )


@hookimpl
def tasks() -> Iterable[str]:
    """Our tasks."""
    return (
        "deepmine_plugins.tasks.sentiment:Sentiment",
        "deepmine_plugins.tasks.text_classification:OwnTexts",
        "deepmine_plugins.tasks.associative_recall:AssociativeRecall",
        "deepmine_plugins.tasks.copy_memory:CopyMemory",
        "deepmine_plugins.tasks.induction:Induction",
        "deepmine_plugins.tasks.needle:Needle",
        "deepmine_plugins.tasks.reversal:Reversal",
        "deepmine_plugins.tasks.list_ops:ListOps",
        "deepmine_plugins.tasks.characters:Characters",
    )


@hookimpl
def backbones() -> Iterable[str]:
    """Our backbones."""
    return (
        "deepmine_plugins.backbones.encoder:Encoder",
        "deepmine_plugins.backbones.decoder:Decoder",
        "deepmine_plugins.backbones.encoder_decoder:EncoderDecoder",
        "deepmine_plugins.backbones.lstm:Lstm",
        "deepmine_plugins.backbones.pretrained:Pretrained",
    )


@hookimpl
def tunings() -> Iterable[str]:
    """Our tunings of pretrained models."""
    return (
        "deepmine_plugins.tunings.adalora:AdaLora",
        "deepmine_plugins.tunings.adapter:Houlsby",
        "deepmine_plugins.tunings.adapter:Pfeiffer",
        "deepmine_plugins.tunings.bitfit:Bitfit",
        "deepmine_plugins.tunings.dora:Dora",
        "deepmine_plugins.tunings.full:Full",
        "deepmine_plugins.tunings.ia3:Ia3",
        "deepmine_plugins.tunings.lora:Lora",
        "deepmine_plugins.tunings.prefix:Prefix",
        "deepmine_plugins.tunings.prompt:Prompt",
        "deepmine_plugins.tunings.rslora:RsLora",
        "deepmine_plugins.tunings.top_layers:TopLayers",
        "deepmine_plugins.tunings.vera:Vera",
    )


@hookimpl
def optimizers() -> Iterable[str]:
    """Our optimizers."""
    return (
        "deepmine_plugins.optimizers.adamw:AdamW",
        "deepmine_plugins.optimizers.lion:Lion",
        "deepmine_plugins.optimizers.sgd:Sgd",
        "deepmine_plugins.optimizers.adafactor:Adafactor",
    )


@hookimpl
def schedules() -> Iterable[str]:
    """Our schedules."""
    return (
        "deepmine_plugins.schedules.cosine:Cosine",
        "deepmine_plugins.schedules.linear:LinearDecay",
        "deepmine_plugins.schedules.constant:Constant",
        "deepmine_plugins.schedules.warmup_stable_decay:WarmupStableDecay",
        "deepmine_plugins.schedules.inverse_sqrt:InverseSqrt",
    )


@hookimpl
def techniques() -> Iterable[str]:
    """Our techniques."""
    return (
        "deepmine_plugins.techniques.awp:Awp",
        "deepmine_plugins.techniques.balanced_sampling:BalancedSampling",
        "deepmine_plugins.techniques.checkpoint_soup:CheckpointSoup",
        "deepmine_plugins.techniques.denoising:Denoising",
        "deepmine_plugins.techniques.ema:Ema",
        "deepmine_plugins.techniques.fgm:Fgm",
        "deepmine_plugins.techniques.focal_loss:FocalLoss",
        "deepmine_plugins.techniques.gradient_accumulation:GradientAccumulation",
        "deepmine_plugins.techniques.healing:Healing",
        "deepmine_plugins.techniques.label_smoothing:LabelSmoothing",
        "deepmine_plugins.techniques.layer_decay:LayerDecay",
        "deepmine_plugins.techniques.mixed_precision:MixedPrecision",
        "deepmine_plugins.techniques.mixup:Mixup",
        "deepmine_plugins.techniques.paraphrases:Paraphrases",
        "deepmine_plugins.techniques.pseudo_labels:PseudoLabels",
        "deepmine_plugins.techniques.r_drop:RDrop",
        "deepmine_plugins.techniques.synonyms:Synonyms",
        "deepmine_plugins.techniques.token_swap:TokenSwap",
        "deepmine_plugins.techniques.vat:Vat",
        "deepmine_plugins.techniques.weight_average:WeightAverage",
        "deepmine_plugins.techniques.word_dropout:WordDropout",
    )


@hookimpl
def samplers() -> Iterable[str]:
    """Our samplers."""
    return (
        "deepmine_plugins.samplers.tpe:Tpe",
        "deepmine_plugins.samplers.random:Random",
        "deepmine_plugins.samplers.gp:Gp",
        "deepmine_plugins.samplers.nsga2:Nsga2",
        "deepmine_plugins.samplers.auto:Auto",
    )


@hookimpl
def pruners() -> Iterable[str]:
    """Our pruners."""
    return (
        "deepmine_plugins.pruners.asha:Asha",
        "deepmine_plugins.pruners.curve:Curve",
        "deepmine_plugins.pruners.pareto_asha:ParetoAsha",
        "deepmine_plugins.pruners.median:Median",
        "deepmine_plugins.pruners.none:KeepAll",
    )


@hookimpl
def commands() -> Iterable[str]:
    """Our subcommands."""
    names = (
        "search", "resume", "studies", "trials", "best", "dashboard", "plugins", "export", "ensemble", "distil",
        "refit", "evaluate", "predict", "doctor",
    )  # fmt: skip
    return tuple(f"deepmine_auto.commands.{name}:{name}" for name in names)
