"""Back-translation: other words for your texts, by way of another language, as `search --paraphrases` reads them.

python examples/002_back_translation.py reviews.csv reworded.csv --there Helsinki-NLP/opus-mt-en-de \
    --back Helsinki-NLP/opus-mt-de-en
deepmine-auto search --task text_classification --data reviews.csv --paraphrases reworded.csv

The way there is drawn at random, so that each time gives other words (arXiv:1808.09381); the way back is the likeliest.
Both models are names of the hub, or folders. Models of Marian need `pip install sentencepiece`. Whatever else makes
paraphrases, a language model or people, will do as well: a table with a column `text` and a column `paraphrase`.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

BATCH = 32


class Translator:
    """A model of transformers that translates."""

    def __init__(self, name: str, *, draws: bool) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(name).eval()
        self.how = {"do_sample": True, "num_beams": 1} if draws else {"do_sample": False, "num_beams": 4}

    def __call__(self, texts: list[str]) -> list[str]:
        """Translate some texts, at once."""
        told = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        most = 2 * told["input_ids"].shape[1] + 10
        with torch.inference_mode():
            return self.tokenizer.batch_decode(
                self.model.generate(**told, **self.how, max_new_tokens=most), skip_special_tokens=True
            )


def reworded(texts: list[str], there: Translator, back: Translator) -> Iterator[tuple[str, str]]:
    """Pairs of a text and other words for it; none where nothing came back, or the text itself."""
    ordered = sorted(texts, key=len)  # texts of like length together: little padding
    for at in range(0, len(ordered), BATCH):
        some = ordered[at : at + BATCH]
        for text, words in zip(some, back(there(some)), strict=True):
            if words.strip() and words.strip() != text:
                yield text, words.strip()
        print(f"{min(at + BATCH, len(ordered)):,} of {len(ordered):,} texts", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, help="Your data as csv; labels are not looked at.")
    options.add_argument("output", type=Path, help="The table that is written.")
    options.add_argument("--text-column", default="text")
    options.add_argument("--there", required=True, metavar="MODEL")
    options.add_argument("--back", required=True, metavar="MODEL")
    options.add_argument("--times", type=int, default=1, help="Paraphrases of each text.")
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()

    torch.manual_seed(asked.seed)
    with open(asked.data, newline="", encoding="utf-8-sig") as file:  # spreadsheets begin it with a mark
        rows = csv.DictReader(file)
        if asked.text_column not in (rows.fieldnames or ()):
            options.error(f"{asked.data} has no column '{asked.text_column}'; name another with --text-column")
        texts = list(dict.fromkeys(text for row in rows if (text := row[asked.text_column])))
    there, back = Translator(asked.there, draws=True), Translator(asked.back, draws=False)
    pairs = {pair for _ in range(asked.times) for pair in reworded(texts, there, back)}
    with open(asked.output, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "paraphrase"), *sorted(pairs)])
    print(f"{len(pairs):,} paraphrases of {len({text for text, _ in pairs}):,} texts in {asked.output}")


if __name__ == "__main__":
    main()
