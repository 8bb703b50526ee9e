FROM alpine
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/a.tar.gz /
ADD --keep-git-dir=true https://example.com/repo.git#v1:sub /src
ADD --unpack=false --chown=app local.tar /opt/
ADD file:///x?y=z&a=b /
