FROM scratch
ENV A=$1 B=$@ C=$$ D=$? E=$- F=$! G=$* H=$# I=$0
