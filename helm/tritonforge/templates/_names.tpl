{{/* Names and labels. */}}

{{- define "tritonforge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* 40 characters leave room for the longest suffix, `-green-headless`, and for what StatefulSets append. */}}
{{- define "tritonforge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* What selects: never changes in the life of an installation. */}}
{{- define "tritonforge.selector" -}}
app.kubernetes.io/name: {{ include "tritonforge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The same and what informs. Not for pods: another version of the chart alone must not restart them. */}}
{{- define "tritonforge.labels" -}}
{{ include "tritonforge.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ include "tritonforge.name" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The value of the label `tritonforge.dev/release`: a digest is longer than a label may be. */}}
{{- define "tritonforge.releaseLabel" -}}
{{- . | default "models" | trimPrefix "sha256:" | trunc 12 }}
{{- end }}

{{/* The name that Kubernetes gives a Service's address in the environment of pods: call with (list $ suffix). */}}
{{- define "tritonforge.addressVariable" -}}
{{- printf "%s%s" (include "tritonforge.fullname" (index . 0)) (index . 1) | upper | replace "-" "_" }}_SERVICE_HOST
{{- end }}

{{- define "tritonforge.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tritonforge.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tritonforge.claim" -}}
{{- default (printf "%s-models" (include "tritonforge.fullname" .)) .Values.models.pvc.claimName }}
{{- end }}

{{/* The slot that clients reach when nothing splits traffic: the one with the greater weight. */}}
{{- define "tritonforge.greaterSlot" -}}
{{- if gt (int .Values.traffic.green) (int .Values.traffic.blue) }}green{{ else }}blue{{ end }}
{{- end }}
