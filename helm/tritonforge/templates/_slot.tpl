{{/* The pods of a slot: call with (dict "root" $ "name" "blue"). */}}

{{/* Lays a slot's own values over a copy of the chart's, so that one slot can change and the other stay: call with
     (dict "into" copy "own" values). Of a section each of its keys is replaced whole; so is what is no section. */}}
{{- define "tritonforge.ownValues" -}}
{{- range $key, $value := .own }}
{{- if has $key (list "models" "probes") }}
{{- $_ := set $.into $key (mergeOverwrite (index $.into $key) (deepCopy $value)) }}
{{- else if has $key (list "server" "gpu" "shutdown" "podSecurity") }}
{{- range $part, $content := $value }}{{ $_ := set (index $.into $key) $part $content }}{{ end }}
{{- else }}
{{- $_ := set $.into $key $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tritonforge.slotSelector" -}}
{{ include "tritonforge.selector" .root }}
app.kubernetes.io/component: server
tritonforge.dev/slot: {{ .name }}
{{- end }}

{{/* Whose pods serve in a slot: its own, or those of a Triton that was adopted into it. */}}
{{- define "tritonforge.servingPods" -}}
{{- $adopted := (index .root.Values.slots .name).adopted }}
{{- if $adopted.selector }}
{{- toYaml $adopted.selector }}
{{- else }}
{{- include "tritonforge.slotSelector" . }}
{{- end }}
{{- end }}

{{/* Where those listen: call with (dict "root" $ "name" slot "port" name); `own` is what the slot's own pods have. */}}
{{- define "tritonforge.servingPort" -}}
{{- $adopted := (index .root.Values.slots .name).adopted }}
{{- if $adopted.selector }}{{ int (index (default dict $adopted.ports) .port | default (index (dict "http" 8000 "grpc" 8001 "metrics" 8002) .port)) }}{{ else }}{{ .own }}{{ end }}
{{- end }}

{{- define "tritonforge.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.podSecurity.runAsUser }}
runAsGroup: {{ int64 .Values.podSecurity.runAsGroup }}
fsGroup: {{ int64 .Values.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "tritonforge.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where a slot's repository is in its container. */}}
{{- define "tritonforge.repository" -}}
{{- $models := .root.Values.models }}
{{- $release := (index .root.Values.slots .name).release }}
{{- if eq $models.source "image" }}
{{- $models.image.path }}
{{- else if eq $models.source "objectStore" }}
{{- printf "/tritonforge/%s/models" (default "plain" $release) }}
{{- else if $release }}
{{- printf "/tritonforge/snapshots/%s/models" $release }}
{{- else -}}
/tritonforge/models
{{- end }}
{{- end }}

{{- define "tritonforge.spread" -}}
{{- $selector := .selector }}
{{- range .root.Values.topologySpread }}
- {{ toYaml . | nindent 2 | trim }}
  labelSelector:
    matchLabels: {{- $selector | nindent 6 }}
{{- end }}
{{- end }}

{{- define "tritonforge.slotResources" -}}
{{- $resources := deepCopy (.Values.server.resources | default dict) }}
{{- if .Values.gpu.enabled }}
{{- $name := .Values.gpu.resource }}
{{- if .Values.gpu.mig }}{{ $name = printf "nvidia.com/mig-%s" .Values.gpu.mig }}{{ end }}
{{- $count := int .Values.gpu.count | toString }}
{{- $_ := set $resources "limits" (set ($resources.limits | default dict) $name $count) }}
{{- $_ := set $resources "requests" (set ($resources.requests | default dict) $name $count) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- define "tritonforge.slotPod" -}}
{{- $root := .root }}
{{- $v := $root.Values }}
{{- $slot := index $v.slots .name }}
{{- $image := include "tritonforge.servingImage" (list $root $slot.image) | fromYaml }}
metadata:
  labels:
    {{- include "tritonforge.slotSelector" . | nindent 4 }}
    tritonforge.dev/release: {{ include "tritonforge.releaseLabel" $slot.release | quote }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: triton
    tritonforge.dev/release: {{ $slot.release | quote }}
    {{- if $v.metrics.annotations }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "8002"
    prometheus.io/path: /metrics
    {{- end }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $slot.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tritonforge.serviceAccount" $root }}
  automountServiceAccountToken: false
  {{- with $v.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.gpu.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  # Draining, then what Triton gives requests in flight, then its models' unloading.
  terminationGracePeriodSeconds: {{ add (int $v.shutdown.drainSeconds) (int $v.shutdown.exitTimeoutSeconds) 15 }}
  securityContext: {{- include "tritonforge.podSecurity" $root | nindent 4 }}
  {{- with $v.topologySpread }}
  topologySpreadConstraints:
    {{- include "tritonforge.spread" (dict "root" $root "selector" (include "tritonforge.slotSelector" $)) | nindent 4 }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- $tolerations := $v.tolerations }}
  {{- if and $v.gpu.enabled $v.gpu.toleration }}
  {{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
  {{- end }}
  {{- with $tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq $v.models.source "objectStore" }}
  initContainers:
    {{- include "tritonforge.fetch" (dict "root" $root "slot" $slot) | nindent 4 }}
  {{- end }}
  containers:
    - name: triton
      image: {{ $image.name | quote }}
      imagePullPolicy: {{ $image.pullPolicy }}
      {{- with $v.server.command }}
      command: {{- toYaml . | nindent 8 }}
      {{- end }}
      args:
        - tritonserver
        - --model-repository={{ include "tritonforge.repository" . }}
        - --model-control-mode=none
        - --http-address=0.0.0.0
        - --http-port=8000
        - --grpc-address=0.0.0.0
        - --grpc-port=8001
        - --metrics-address=0.0.0.0
        - --metrics-port=8002
        - --exit-timeout-secs={{ int $v.shutdown.exitTimeoutSeconds }}
        {{- if and (int $v.shutdown.grpcConnectionSeconds) (not $v.proxy.enabled) (not $v.gatewayAPI.enabled) }}
        # Clients that connect to the pod itself must have left it when it ends; they connect anew, elsewhere.
        - --grpc-max-connection-age={{ mul (int $v.shutdown.grpcConnectionSeconds) 1000 }}
        {{- end }}
        {{- range concat $v.server.arguments $v.server.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      ports:
        - {name: http, containerPort: 8000, protocol: TCP}
        - {name: grpc, containerPort: 8001, protocol: TCP}
        - {name: metrics, containerPort: 8002, protocol: TCP}
      env:
        # What wants to write finds the one place where it can.
        - {name: HOME, value: /tmp}
        - {name: TMPDIR, value: /tmp}
        {{- with $v.server.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $v.server.envFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      # Triton opens its ports only once all models are loaded, so nothing but the startup probe may count until then.
      startupProbe:
        httpGet: {path: /v2/health/live, port: http}
        periodSeconds: {{ int $v.probes.startup.periodSeconds }}
        timeoutSeconds: 5
        failureThreshold: {{ max 1 (div (int $v.probes.startup.timeoutSeconds) (int $v.probes.startup.periodSeconds)) }}
      readinessProbe:
        httpGet: {path: /v2/health/ready, port: http}
        periodSeconds: {{ int $v.probes.readiness.periodSeconds }}
        timeoutSeconds: {{ int $v.probes.readiness.timeoutSeconds }}
        failureThreshold: {{ int $v.probes.readiness.failureThreshold }}
      livenessProbe:
        httpGet: {path: /v2/health/live, port: http}
        periodSeconds: {{ int $v.probes.liveness.periodSeconds }}
        timeoutSeconds: {{ int $v.probes.liveness.timeoutSeconds }}
        failureThreshold: {{ int $v.probes.liveness.failureThreshold }}
      # A server that is told to end refuses new requests at once; until everybody has stopped sending them it must serve.
      lifecycle:
        preStop:
          exec:
            command: [sleep, {{ int $v.shutdown.drainSeconds | quote }}]
      resources: {{- include "tritonforge.slotResources" $root | nindent 8 }}
      securityContext: {{- include "tritonforge.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        - {name: tmp, mountPath: /tmp}
        {{- if eq $v.models.source "pvc" }}
        # All of the volume: for a subPath that is not there Kubernetes would make an empty folder, and Triton be ready with nothing.
        - name: models
          mountPath: /tritonforge
          readOnly: true
          {{- with $v.models.pvc.subPath }}
          subPath: {{ . }}
          {{- end }}
        {{- else if eq $v.models.source "objectStore" }}
        - {name: models, mountPath: /tritonforge, readOnly: true}
        {{- end }}
        {{- with $v.server.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $v.server.sharedMemory | quote }}}
    - name: tmp
      emptyDir: {sizeLimit: {{ $v.server.scratch | quote }}}
    {{- if eq $v.models.source "pvc" }}
    - name: models
      persistentVolumeClaim: {claimName: {{ include "tritonforge.claim" $root }}}
    {{- else if eq $v.models.source "objectStore" }}
    - name: models
      {{- if $v.models.objectStore.cacheClaim }}
      persistentVolumeClaim: {claimName: {{ $v.models.objectStore.cacheClaim }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $v.models.objectStore.size | quote }}}
      {{- end }}
    - name: fetch
      configMap: {name: {{ include "tritonforge.fullname" $root }}-fetch}
    {{- end }}
    {{- with $v.server.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* The init container that brings a release from an object store: call with (dict "root" $ "slot" slot). */}}
{{- define "tritonforge.fetch" -}}
{{- $store := .root.Values.models.objectStore }}
{{- $release := .slot.release | default "" }}
{{- $image := include "tritonforge.servingImage" (list .root .slot.image) | fromYaml }}
{{- with $store.image.repository }}
{{- $image = dict "name" (include "tritonforge.imageName" $store.image) "pullPolicy" ($store.image.pullPolicy | default "IfNotPresent") }}
{{- end }}
- name: fetch
  image: {{ $image.name | quote }}
  imagePullPolicy: {{ $image.pullPolicy }}
  command:
    - python3
    - -B
    - /fetch/fetch.py
    - --url={{ $store.url | replace "{release}" $release }}
    - --to=/tritonforge/{{ default "plain" $release }}
    {{- if $store.checksums.sha256 }}
    - --checksums={{ $store.checksums.path }}
    - --sha256={{ $store.checksums.sha256 }}
    {{- else }}
    - --sha256={{ $release }}
    {{- end }}
    - --parallel={{ int $store.parallel }}
    {{- with $store.endpoint }}
    - --endpoint={{ . }}
    {{- end }}
    - --region={{ $store.region }}
  {{- with $store.secretRef }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  resources: {{- toYaml $store.resources | nindent 4 }}
  securityContext: {{- include "tritonforge.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /tritonforge}
    - {name: fetch, mountPath: /fetch, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end }}
