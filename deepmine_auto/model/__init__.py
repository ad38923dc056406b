"""Model parts that the host owns: the mask, the heads around a core, blocks, the encoder, the last layers."""
