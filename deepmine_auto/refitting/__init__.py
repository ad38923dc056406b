"""The winner trained once more when the study has ended: on all rows that the search could see."""
