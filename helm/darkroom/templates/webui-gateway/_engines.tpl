{{/* URLs of the engines, separated by commas: each pod of this release by its own name, up to the most there may be, then others. */}}
{{- define "darkroom.engines" -}}
{{- $urls := list -}}
{{- if .Values.webuiEngine.enabled -}}
{{- $c := dict "root" . "name" "webui-engine" "values" .Values.webuiEngine -}}
{{- $name := include "darkroom.name" $c -}}
{{- range until (include "darkroom.maxReplicas" $c | int) -}}
{{- $urls = append $urls (printf "http://%s-%d.%s-headless.%s.svc:%s" $name . $name $.Release.Namespace (include "darkroom.port.engine" $)) -}}
{{- end -}}
{{- end -}}
{{- join "," (concat $urls .Values.webuiGateway.engines) -}}
{{- end -}}
