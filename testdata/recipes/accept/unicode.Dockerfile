FROM alpine
LABEL name="größe – 尺寸" emoji=🚀
RUN echo 'żółć' \
    && echo 日本語
COPY größe.txt /
