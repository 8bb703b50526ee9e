from scratch AS a
