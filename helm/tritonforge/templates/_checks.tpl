{{/* What the schema cannot say: one clear refusal each. */}}
{{- define "tritonforge.checks" -}}
{{- $v := .Values }}
{{- $enabled := list }}
{{- range $name := list "blue" "green" }}
{{- $slot := index $v.slots $name }}
{{- if or $slot.enabled $slot.adopted.selector }}{{ $enabled = append $enabled $name }}{{ end }}
{{- if and $slot.enabled $slot.adopted.selector }}
{{- fail (printf "slots.%s.enabled is true and slots.%s.adopted.selector is given: a slot runs its own pods or somebody else's" $name $name) }}
{{- end }}
{{- if and $slot.enabled (eq $v.models.source "objectStore") (not $slot.release) (not $v.models.objectStore.checksums.sha256) }}
{{- fail (printf "slots.%s.release is empty: what models.objectStore brings cannot be checked. Give the release's digest, or models.objectStore.checksums" $name) }}
{{- end }}
{{- end }}
{{- if and $v.proxy.enabled $v.gatewayAPI.enabled }}
{{- fail "proxy.enabled and gatewayAPI.enabled are both true: two would move the same traffic. Choose one" }}
{{- end }}
{{- if $enabled }}
{{- range $name := list "blue" "green" }}
{{- if and (gt (int (index $v.traffic $name)) 0) (not (has $name $enabled)) }}
{{- fail (printf "traffic.%s is %d, but slots.%s.enabled is false: its requests would be lost" $name (int (index $v.traffic $name)) $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq (add (int $v.traffic.blue) (int $v.traffic.green)) 0 }}
{{- fail "traffic.blue and traffic.green are both 0: no slot would get a request" }}
{{- end }}
{{- if and (gt (int $v.traffic.blue) 0) (gt (int $v.traffic.green) 0) (not $v.proxy.enabled) (not $v.gatewayAPI.enabled) }}
{{- fail "traffic names two slots, but nothing splits it: set proxy.enabled or gatewayAPI.enabled, or one of the weights to 0" }}
{{- end }}
{{- if and $v.gatewayAPI.enabled (not $v.gatewayAPI.parentRefs) }}
{{- fail "gatewayAPI.enabled needs gatewayAPI.parentRefs: [{name: your-gateway}]" }}
{{- end }}
{{- if and $v.keeper.enabled (not $v.keeper.agent) }}
{{- fail "keeper.enabled needs keeper.agent, the agent's source: --set-file keeper.agent=agent.py (`tritonforge deploy` gives it)" }}
{{- end }}
{{- if and $v.keeper.enabled (ne $v.models.source "pvc") }}
{{- fail (printf "keeper.enabled needs models.source: pvc, a volume to keep releases on; it is %s" $v.models.source) }}
{{- end }}
{{- if and (eq $v.models.source "objectStore") (not $v.models.objectStore.url) }}
{{- fail "models.source: objectStore needs models.objectStore.url" }}
{{- end }}
{{- if and (eq $v.models.source "pvc") (not $v.models.pvc.claimName) (not $v.models.pvc.create.enabled) }}
{{- fail "models.source: pvc needs models.pvc.claimName or models.pvc.create.enabled" }}
{{- end }}
{{- if and $v.proxy.enabled $v.proxy.sequenceHeader }}
{{- if gt (int $v.proxy.replicas) 1 }}
{{- fail "proxy.sequenceHeader needs proxy.replicas: 1, as proxies do not tell each other which server has a sequence" }}
{{- end }}
{{- if eq $v.proxy.discovery "service" }}
{{- $most := max (int $v.slots.blue.replicas) (int $v.slots.green.replicas) }}
{{- if $v.autoscaling.enabled }}{{ $most = int $v.autoscaling.maxReplicas }}{{ end }}
{{- if gt (int $most) 1 }}
{{- fail "proxy.sequenceHeader with slots of several pods needs proxy.discovery: dns, as a Service spreads requests over its pods" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $v.proxy.enabled (eq $v.proxy.discovery "dns") }}
{{- $most := max (int $v.slots.blue.replicas) (int $v.slots.green.replicas) }}
{{- if $v.autoscaling.enabled }}{{ $most = int $v.autoscaling.maxReplicas }}{{ end }}
{{- if gt (int $most) (int $v.proxy.maxPods) }}
{{- fail (printf "a slot may have %d pods, but proxy.maxPods is %d: the others would get no request" (int $most) (int $v.proxy.maxPods)) }}
{{- end }}
{{- end }}
{{- if and (not $v.proxy.enabled) (or $v.proxy.tls.secretName $v.proxy.tls.clientCASecretName $v.proxy.tokens.secretName) }}
{{- fail "proxy.tls or proxy.tokens is set, but proxy.enabled is false: nothing would ask for them" }}
{{- end }}
{{- if and $v.proxy.tls.clientCASecretName (not $v.proxy.tls.secretName) }}
{{- fail "proxy.tls.clientCASecretName needs proxy.tls.secretName: without TLS there are no certificates" }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas is greater than autoscaling.maxReplicas" }}
{{- end }}
{{- if and (eq (toString $v.workload.rollingUpdate.maxSurge) "0") (eq (toString $v.workload.rollingUpdate.maxUnavailable) "0") }}
{{- fail "workload.rollingUpdate.maxSurge and maxUnavailable are both 0: no pod could ever be replaced" }}
{{- end }}
{{- $ours := list "model-repository" "model-store" "model-control-mode" "http-port" "grpc-port" "metrics-port" "http-address" "grpc-address" "metrics-address" "exit-timeout-secs" "grpc-max-connection-age" }}
{{- range $name := list "blue" "green" }}
{{- $own := deepCopy $v }}
{{- include "tritonforge.ownValues" (dict "into" $own "own" (index $v.slots $name).values) }}
{{- range concat $own.server.arguments $own.server.extraArgs }}
{{- $option := splitList "=" . | first | trimPrefix "--" }}
{{- if has $option $ours }}
{{- fail (printf "server.arguments or server.extraArgs has --%s, which the chart sets itself" $option) }}
{{- end }}
{{- end }}
{{- $shutdown := $own.shutdown }}
{{- if gt (mul (int $shutdown.grpcConnectionSeconds) 5) (mul (int $shutdown.drainSeconds) 4) }}
{{- fail (printf "shutdown.grpcConnectionSeconds is %d: it must be at most four fifths of shutdown.drainSeconds (%d), or connections outlive draining" (int $shutdown.grpcConnectionSeconds) (int $shutdown.drainSeconds)) }}
{{- end }}
{{- end }}
{{- end }}
