{{/* Images. */}}

{{/* `repository:tag@digest` of {repository, tag, digest}. */}}
{{- define "tritonforge.imageName" -}}
{{- .repository }}{{ with .tag }}:{{ . }}{{ end }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The serving image with what differs: call with (list $ differences). Gives YAML of {name, pullPolicy}.
     A tag or a digest of its own replaces both: the other one belongs to another image. */}}
{{- define "tritonforge.servingImage" -}}
{{- $root := index . 0 }}
{{- $own := index . 1 | default dict }}
{{- $image := $root.Values.image }}
{{- $tag := default $root.Chart.AppVersion $image.tag }}
{{- if and $image.digest (not $image.tag) }}{{ $tag = "" }}{{ end }}
{{- $pinned := dict "repository" $image.repository "tag" $tag "digest" $image.digest }}
{{- if or $own.tag $own.digest }}
{{- $pinned = dict "repository" $image.repository "tag" ($own.tag | default "") "digest" ($own.digest | default "") }}
{{- end }}
{{- if $own.repository }}{{ $_ := set $pinned "repository" $own.repository }}{{ end }}
name: {{ include "tritonforge.imageName" $pinned | quote }}
pullPolicy: {{ $own.pullPolicy | default $image.pullPolicy }}
{{- end }}
