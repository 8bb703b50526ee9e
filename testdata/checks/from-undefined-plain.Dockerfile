FROM scratch$nowhere
