"""How many labels does pretraining save? Dice against the number of labelled scans, pretrained and from scratch."""
