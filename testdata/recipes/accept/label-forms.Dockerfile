FROM alpine
LABEL a=b "com.example.key"="value with blanks" org.opencontainers.image.title=x
LABEL old form of label
LABEL multi="one \
two"
