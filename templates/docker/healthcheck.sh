#!/bin/bash
# Whether the server is ready, by bash alone: the smaller images of Triton have no curl.
exec 3<>"/dev/tcp/127.0.0.1/${TRITON_HTTP_PORT:-8000}" || exit 1
printf 'GET /v2/health/ready HTTP/1.0\r\n\r\n' >&3
read -r -t 4 _ status _ <&3 && [ "$status" = 200 ]
