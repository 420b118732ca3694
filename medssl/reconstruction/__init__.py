"""From depth, poses and pictures to surfaces, and views of them."""
