from scratch
cmd ["1"]
cmd ["2"]
