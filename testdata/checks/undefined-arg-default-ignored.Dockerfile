FROM scratch
ARG a
ARG a=$nowhere
