FROM alpine AS Builder
RUN true
FROM BUILDER as final_1.0-rc
