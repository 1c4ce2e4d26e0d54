{{/* Where a component's pods go: the service's own entries, else those of `placement`. */}}
{{- define "darkroom.placement" -}}
{{- $own := .values -}}
{{- $shared := .root.Values.placement -}}
{{- with default $shared.nodeSelector $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := concat (include "darkroom.gpuTolerations" . | fromYamlArray) (default $shared.tolerations $own.tolerations) | uniq -}}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "darkroom.affinity" . | fromYaml }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $shared.priorityClassName $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with include "darkroom.spread" . | fromYamlArray }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "darkroom.gpuPodFields" . }}
{{- end -}}

{{/*
Spread of a service's replicas over nodes: the soft default and the service's own constraints, as a YAML list. A constraint
without a labelSelector would count no pod and do nothing, so it gets the service's.
*/}}
{{- define "darkroom.spread" -}}
{{- $selector := dict "matchLabels" (include "darkroom.selectorLabels" . | fromYaml) -}}
{{- $constraints := list -}}
{{- range default list .values.topologySpreadConstraints -}}
{{- $constraints = append $constraints (ternary . (set (deepCopy .) "labelSelector" $selector) (hasKey . "labelSelector")) -}}
{{- end -}}
{{- if and .root.Values.placement.spread (hasKey .values "replicas") -}}
{{- $soft := dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" $selector -}}
{{- $constraints = prepend $constraints $soft -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end -}}

{{/*
Affinity as YAML: the given one, with what the GPU asks of a node's labels added to every required node selector term.
Terms are alternatives, so a requirement counts only when it is in each of them.
*/}}
{{- define "darkroom.affinity" -}}
{{- $affinity := deepCopy (default .root.Values.placement.affinity .values.affinity) -}}
{{- $labels := include "darkroom.gpuNodeLabels" . | fromYamlArray -}}
{{- if $labels -}}
{{- $node := default dict $affinity.nodeAffinity -}}
{{- $required := default dict $node.requiredDuringSchedulingIgnoredDuringExecution -}}
{{- $terms := list -}}
{{- range default (list dict) $required.nodeSelectorTerms -}}
{{- $terms = append $terms (merge (dict "matchExpressions" (concat (default list .matchExpressions) $labels)) .) -}}
{{- end -}}
{{- $_ := set $required "nodeSelectorTerms" $terms -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}
