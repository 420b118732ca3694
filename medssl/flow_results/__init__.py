"""What optical flow of recordings is worth: scores with and without a truth, pictures and a page."""
