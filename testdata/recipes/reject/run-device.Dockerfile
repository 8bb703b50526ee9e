FROM alpine
RUN --device=vendor.com/gpu=all nvidia-smi
