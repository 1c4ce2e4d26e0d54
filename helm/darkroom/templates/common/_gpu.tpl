{{/*
The GPU block of a service. Off, none of these helpers prints anything. `values.gpu` is absent in services that never use one.
The training Jobs get the same block through execution.yaml; the trainer renders it.
*/}}

{{/* Whether the component asks for a GPU: "true" or nothing. */}}
{{- define "darkroom.hasGpu" -}}
{{- if (default dict .values.gpu).enabled -}}true{{- end -}}
{{- end -}}

{{/* Whether a GPU block asks for a card of NVIDIA: "true" or nothing. With a claim, resourceName still tells the vendor. */}}
{{- define "darkroom.hasNvidia" -}}
{{- with . -}}{{- if and .enabled (hasPrefix "nvidia.com/" .resourceName) -}}true{{- end -}}{{- end -}}
{{- end -}}

{{/* DARKROOM_DEVICE. With a GPU "auto" becomes cuda (so AMD's are named, too): without its card a pod fails instead of computing on the CPU. */}}
{{- define "darkroom.device" -}}
{{- if and (include "darkroom.hasGpu" .) (eq .values.device "auto") -}}cuda{{- else -}}{{ .values.device }}{{- end -}}
{{- end -}}

{{/* The taint that vendors put on GPU nodes, <vendor>/gpu, as a YAML list of tolerations. */}}
{{- define "darkroom.gpuTolerations" -}}
{{- if include "darkroom.hasGpu" . -}}
- key: {{ splitList "/" .values.gpu.resourceName | first }}/gpu
  operator: Exists
  effect: NoSchedule
{{- end -}}
{{- end -}}

{{/*
Requirements on a node's labels, as a YAML list of match expressions: the same rules as of training Jobs (libs/jobs).
A MIG slice tells its memory by its name; AMD's labeller gives no memory in numbers.
*/}}
{{- define "darkroom.gpuNodeLabels" -}}
{{- if include "darkroom.hasGpu" . -}}
{{- $gpu := .values.gpu -}}
{{- $vendor := splitList "/" $gpu.resourceName | first -}}
{{- if and $gpu.minMemoryMiB (not (hasPrefix "nvidia.com/mig-" $gpu.resourceName)) }}
- key: nvidia.com/gpu.memory
  operator: Gt
  values: [{{ sub (int $gpu.minMemoryMiB) 1 | quote }}]
{{- end }}
{{- with $gpu.products }}
- key: {{ ternary "nvidia.com/gpu.product" (printf "%s/gpu.product-name" $vendor) (eq $vendor "nvidia.com") }}
  operator: In
  values:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Fields of the pod: runtime class and resource claim. */}}
{{- define "darkroom.gpuPodFields" -}}
{{- if include "darkroom.hasGpu" . }}
{{- with .values.gpu.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.gpu.resourceClaimTemplateName }}
resourceClaims:
  - name: gpu
    resourceClaimTemplateName: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* resources of a component's container. With a GPU its memory is guaranteed: limit and request are one. */}}
{{- define "darkroom.resources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if include "darkroom.hasGpu" . -}}
{{- $gpu := .values.gpu -}}
{{- $requests := default dict $resources.requests -}}
{{- $limits := set (default dict $resources.limits) "memory" $requests.memory -}}
{{- if $gpu.resourceClaimTemplateName -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- else -}}
{{- $_ := set $requests $gpu.resourceName (toString $gpu.count) -}}
{{- $_ := set $limits $gpu.resourceName (toString $gpu.count) -}}
{{- end -}}
{{- $_ := set $resources "requests" $requests -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
resources:
  {{- toYaml $resources | nindent 2 }}
{{- end -}}
