# syntax=registry.example.com/other/frontend:1
FROM alpine
