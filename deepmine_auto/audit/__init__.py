"""Whether a study is what it says: verified from its rows, recorded, and replayed without training."""
