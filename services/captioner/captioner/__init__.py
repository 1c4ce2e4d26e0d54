"""The captioner service: words, answers, vectors and scores for pictures, by BLIP-2."""
