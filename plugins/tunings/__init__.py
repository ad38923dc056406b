"""What of a pretrained model learns: one short file each."""
