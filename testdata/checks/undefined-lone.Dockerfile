FROM scratch
ENV A=$ B=a$ C=$. D=$%
