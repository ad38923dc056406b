"""What a person sees of a study: pictures of it, words for it, and the views that draw them."""
