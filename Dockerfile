# One static binary and the root certificates; nothing else is in the image.
#
#   docker build -t ssegate .
#   docker run -p 8080:8080 -v ./ssegate.toml:/etc/ssegate.toml:ro ssegate -config /etc/ssegate.toml
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /ssegate ./cmd/ssegate

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /ssegate /ssegate
# Nobody's number: there is no /etc/passwd to look a name up in.
USER 65532:65532
# Clients come to 8080. The internal listener, 8089, is on the container's own
# loopback address, so it is reached from inside its network namespace only.
EXPOSE 8080 8089
STOPSIGNAL SIGTERM
ENTRYPOINT ["/ssegate"]
