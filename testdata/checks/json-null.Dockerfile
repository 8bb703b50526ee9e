FROM scratch
CMD ["a", null]
