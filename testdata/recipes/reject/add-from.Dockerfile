FROM alpine
ADD --frm=x a b
