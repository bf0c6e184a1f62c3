{{/* Questions to Prometheus, over the series that the ServiceMonitor collects. */}}

{{/* The series of one slot, or of both where `name` is empty: call with (dict "root" $ "name" "blue"). */}}
{{- define "tritonforge.series" -}}
{{- printf `namespace="%s",service=~"%s-(%s)-headless"` .root.Release.Namespace (include "tritonforge.fullname" .root) (.name | default "blue|green") }}
{{- end }}

{{/* Microseconds that a request waited on average: call with (dict "root" $ "name" "" "by" "by (model)"). */}}
{{- define "tritonforge.queueTime" -}}
{{- $series := include "tritonforge.series" . -}}
sum {{ .by }}(rate(nv_inference_queue_duration_us{{ printf "{%s}" $series }}[2m])) / sum {{ .by }}(rate(nv_inference_request_success{{ printf "{%s}" $series }}[2m]) > 0)
{{- end }}
