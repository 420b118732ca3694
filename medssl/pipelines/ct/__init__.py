"""Pretraining on CT and fine-tuning to weak multi-organ labels, beside training from scratch."""
