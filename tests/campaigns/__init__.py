"""Long searches for a wrong answer. What each found is in README.md; a short version of each is a test."""
