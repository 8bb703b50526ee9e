FROM --platform=linux/amd46 scratch
