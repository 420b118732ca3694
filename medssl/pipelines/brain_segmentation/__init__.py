"""Weak labels, pretraining, fine-tuning with error-corrective boosting: the four arms, side by side."""
