FROM scratch
ONBUILD --x RUN y
