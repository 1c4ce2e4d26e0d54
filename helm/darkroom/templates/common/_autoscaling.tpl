{{/* Scaling of a component; kind: Deployment or StatefulSet. */}}
{{- define "darkroom.autoscaler" -}}
{{- $scaling := .values.autoscaling -}}
{{- if $scaling.enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "darkroom.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ default "Deployment" .kind }}
    name: {{ include "darkroom.name" . }}
  minReplicas: {{ int64 $scaling.minReplicas }}
  maxReplicas: {{ int64 $scaling.maxReplicas }}
  metrics:
    {{- with $scaling.cpuUtilizationPercent }}
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ int64 . }}}
    {{- end }}
    {{- with $scaling.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* KEDA's scaler; kind as above, query: PromQL of the queue's length. */}}
{{- define "darkroom.scaledObject" -}}
{{- $keda := .values.keda -}}
{{- if $keda.enabled -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "darkroom.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ default "Deployment" .kind }}
    name: {{ include "darkroom.name" . }}
  minReplicaCount: {{ int64 $keda.minReplicas }}
  maxReplicaCount: {{ int64 $keda.maxReplicas }}
  pollingInterval: {{ int64 $keda.pollingSeconds }}
  cooldownPeriod: {{ int64 $keda.cooldownSeconds }}
  triggers:
    - type: prometheus
      metadata:
        serverAddress: {{ .root.Values.monitoring.prometheusAddress }}
        threshold: {{ $keda.queueLength | int64 | quote }}
        query: {{ .query | quote }}
    {{- with $keda.triggers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* Only where another pod goes on: with one replica it would block every drain of its node. */}}
{{- define "darkroom.disruptionBudget" -}}
{{- if gt (include "darkroom.maxReplicas" . | int) 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "darkroom.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "darkroom.selectorLabels" . | nindent 6 }}
{{- end -}}
{{- end -}}
