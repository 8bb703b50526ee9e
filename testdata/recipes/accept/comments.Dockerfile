# a comment
   # an indented one
FROM alpine
#
# RUN nothing
RUN echo '# not a comment'
