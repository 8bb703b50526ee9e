FROM scratch
# escape=`
ENV A=b `
