{{/* haproxy.cfg: call with (dict "root" $ "blue" weight "green" weight). HAProxy 2.6 or newer. */}}

{{/* The servers of both slots: call with (dict "root" $ "backend" name "protocol" name "port" n "options" text "weights" dict). */}}
{{- define "tritonforge.haproxyServers" -}}
{{- $root := .root }}
{{- $proxy := $root.Values.proxy }}
{{- $full := include "tritonforge.fullname" $root }}
{{- $spare := list }}
{{- range $index, $name := list "blue" "green" }}
{{- if eq $proxy.discovery "dns" }}
{{- /* Here addresses are those of pods, so ports are theirs too. */}}
{{- $port := include "tritonforge.servingPort" (dict "root" $root "name" $name "port" $.protocol "own" $.port) }}
{{- $health := include "tritonforge.servingPort" (dict "root" $root "name" $name "port" "http" "own" 8000) }}
{{- $host := printf "%s-%s-headless.%s.svc.%s" $full $name $root.Release.Namespace $proxy.clusterDomain }}
    server-template {{ $name }} 1-{{ int $proxy.maxPods }} {{ $host }}:{{ $port }} weight {{ index $.weights $name }} check port {{ $health }} check-proto h1 resolvers cluster init-addr none{{ $.options }}
    {{- $spare = append $spare (printf "server-template spare-%s 1-%d %s:%s backup check port %s check-proto h1 resolvers cluster resolve-opts allow-dup-ip init-addr none%s" $name (int $proxy.maxPods) $host $port $health $.options) }}
{{- else }}
{{- $host := printf "\"${%s}\"" (include "tritonforge.addressVariable" (list $root (printf "-%s" $name))) }}
    {{- $health := "check" }}
    {{- if ne $.backend "triton_http" }}{{ $health = printf "track triton_http/%s" $name }}{{ end }}
    server {{ $name }} {{ $host }}:{{ $.port }} id {{ add $index 1 }} weight {{ index $.weights $name }} {{ $health }}{{ $.options }}
    {{- $spare = append $spare (printf "server spare-%s %s:%d id %d backup track triton_http/%s%s" $name $host (int $.port) (add $index 11) $name $.options) }}
{{- end }}
{{- end }}
    # They serve when no slot with a weight is up.
{{- range $spare }}
    {{ . }}
{{- end }}
{{- end }}

{{- define "tritonforge.haproxy" -}}
{{- $root := .root }}
{{- $proxy := $root.Values.proxy }}
{{- $weights := dict "blue" (int .blue) "green" (int .green) }}
{{- $fresh := "" }}
{{- if eq $proxy.discovery "service" }}{{ $fresh = " pool-max-conn 0 max-reuse 0" }}{{ end }}
{{- $tls := "" }}
{{- if $proxy.tls.secretName }}
{{- $tls = " ssl crt /etc/haproxy/tls/tls.crt" }}
{{- if $proxy.tls.clientCASecretName }}{{ $tls = printf "%s ca-file /etc/haproxy/clients/ca.crt verify required" $tls }}{{ end }}
{{- end -}}
global
    log stdout format raw local0 notice
    maxconn {{ int $proxy.maxConnections }}
    nbthread {{ int $proxy.threads }}
    hard-stop-after {{ int $proxy.shutdown.hardStopSeconds }}s
    # The keeper moves weights here; the NetworkPolicy lets nobody else in.
    stats socket ipv4@*:9999 level admin
    stats timeout 2m
    tune.bufsize {{ int $proxy.bufferBytes }}
    # Tensors are large: with HTTP/2's own 64 KiB a request waits for a round trip every 64 KiB.
    tune.h2.initial-window-size 1048576
    {{- if $proxy.tls.secretName }}
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    # tls.crt and tls.key, as Kubernetes names them.
    ssl-load-extra-del-ext
    ssl-load-extra-files key
    {{- end }}

defaults
    mode http
    log global
    option httplog
    # Only what went wrong: a line for each request would be the proxy's greatest cost.
    option dontlog-normal
    option log-separate-errors
    # A reload leaves a client's idle connection to the old process until its next answer, which says that it ends:
    # closed at once, it would meet requests that are on their way.
    option idle-close-on-response
    option forwardfor
    unique-id-format %[uuid()]
    option redispatch 1
    retries 8
    timeout connect {{ int $proxy.timeouts.connect }}s
    timeout http-request {{ int $proxy.timeouts.request }}s
    timeout http-keep-alive {{ int $proxy.timeouts.idle }}s
    timeout client {{ int $proxy.timeouts.idle }}s
    timeout server {{ int $proxy.timeouts.server }}s
    timeout queue 10s
    timeout check 2s
    default-server inter 1s fastinter 250ms downinter 1s fall 2 rise 1
{{- if eq $proxy.discovery "dns" }}

resolvers cluster
    parse-resolv-conf
    accepted_payload_size 8192
    timeout resolve 1s
    timeout retry 1s
    hold valid 1s
    hold obsolete 1s
    hold nx 1s
    hold refused 30s
    hold timeout 30s
    hold other 30s
{{- end }}

frontend http
    bind :8000{{ if $tls }}{{ $tls }} alpn h2,http/1.1{{ end }}
    acl offered path,url_dec -m reg ^/v2(/?|/health/.*|/models/.*)$
    acl control path,url_dec -m reg -i (/repository|/trace/|/logging|sharedmemory|/\.\.?(/|$))
    # `/v2/models/stats` and a model whose name is `repository` are no control endpoints.
    acl inference path,url_dec -m reg ^/v2/models/[^/]+(/versions/[^/]+)?(/(infer|generate|generate_stream|ready|config|stats))?$
    {{- if $proxy.tokens.secretName }}
    acl health path_beg /v2/health/
    acl bearer http_auth_bearer,sha2(256),hex,lower -m str -f /etc/haproxy/tokens/tokens
    http-request return status 401 content-type application/json string "{\"error\":\"a bearer token is needed that this server knows\"}" hdr WWW-Authenticate Bearer unless health or bearer
    http-request del-header authorization
    {{- end }}
    http-request return status 403 content-type application/json string "{\"error\":\"this endpoint is not offered here\"}" if !offered or control !inference
    http-request set-header X-Request-Id %[unique-id] unless { req.hdr(X-Request-Id) -m found }
    # Only a request that is all at hand can be sent again. One that is larger than the buffer goes on at once.
    http-request wait-for-body time {{ int $proxy.timeouts.request }}s if METH_POST
    default_backend triton_http

frontend grpc
    bind :8001{{ if $tls }}{{ $tls }} alpn h2{{ else }} proto h2{{ end }}
    acl offered path_reg ^/inference\.GRPCInferenceService/(ServerLive|ServerReady|ModelReady|ServerMetadata|ModelMetadata|ModelInfer|ModelStreamInfer|ModelConfig|ModelStatistics)$
    acl health path_reg ^/(grpc\.health\.v1\.Health/(Check|Watch)|inference\.GRPCInferenceService/Server(Live|Ready))$
    {{- if $proxy.tokens.secretName }}
    acl bearer http_auth_bearer,sha2(256),hex,lower -m str -f /etc/haproxy/tokens/tokens
    http-request return status 200 hdr grpc-status 16 hdr grpc-message "a bearer token is needed that this server knows" unless health or bearer
    http-request del-header authorization
    {{- end }}
    http-request return status 200 hdr grpc-status 7 hdr grpc-message "this call is not offered here" unless offered or health
    # A refusal has no body, and HAProxy gives a Content-Type only to what has one; clients need it.
    http-after-response set-header Content-Type application/grpc if { res.hdr(grpc-status) -m found } !{ res.hdr(Content-Type) -m found }
    http-request set-header X-Request-Id %[unique-id] unless { req.hdr(X-Request-Id) -m found }
    # Not for streams: their requests end when the client says so.
    http-request wait-for-body time {{ int $proxy.timeouts.request }}s unless { path_end /ModelStreamInfer /Watch }
    default_backend triton_grpc

# For probes and Prometheus.
frontend metrics
    bind :8405
    monitor-uri /healthz
    http-request use-service prometheus-exporter if { path /metrics }
    http-request return status 404

# The statistics page, for `kubectl port-forward`.
frontend statistics
    bind 127.0.0.1:8404
    stats enable
    stats uri /
{{- range $protocol := list "http" "grpc" }}

backend triton_{{ $protocol }}
    # By chance and not in turn: after weights were moved, `roundrobin` gives one server every request for as long as a
    # cycle takes (seen: 165 in a row at 50/50), and a newcomer must never get more than its share.
    balance random(1)
    option allbackups
    option httpchk GET /v2/health/ready
    http-check expect status 200
    retry-on conn-failure empty-response 503
    {{- if eq $proxy.discovery "service" }}
    # Each request by a connection of its own: one that is kept would hold on to a pod which is about to end, behind an
    # address that stays. (Letting Triton end its gRPC connections by age instead lost answers with HAProxy 2.6.)
    http-reuse never
    {{- if eq $protocol "http" }}
    option http-server-close
    {{- end }}
    {{- end }}
    {{- with $proxy.sequenceHeader }}
    # The requests of a sequence keep their server, also when its weight is 0; none is sent twice.
    {{- if eq $protocol "http" }}
    stick-table type string len 128 size 200k expire 30m
    {{- end }}
    stick on req.hdr({{ . }}) table triton_http if { req.hdr({{ . }}) -m found }
    http-request disable-l7-retry if { req.hdr({{ . }}) -m found }
    {{- end }}
    {{- if eq $protocol "http" }}
    {{- include "tritonforge.haproxyServers" (dict "root" $root "backend" "triton_http" "protocol" "http" "port" 8000 "options" "" "weights" $weights) }}
    {{- else }}
    {{- include "tritonforge.haproxyServers" (dict "root" $root "backend" "triton_grpc" "protocol" "grpc" "port" 8001 "options" (printf " proto h2%s" $fresh) "weights" $weights) }}
    {{- end }}
{{- end }}
{{- end }}
