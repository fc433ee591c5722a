{{/* Names are fixed: there is one control in a cluster, and engines know it as aegrail-control.NAMESPACE.svc. */}}

{{/* Without the version: what has only these changes with its content alone. */}}
{{- define "aegrail.fixedLabels" -}}
app.kubernetes.io/name: aegrail-engine
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "aegrail.labels" -}}
{{ include "aegrail.fixedLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "aegrail.controlSelector" -}}
app.kubernetes.io/name: aegrail-engine
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: control
{{- end }}

{{- define "aegrail.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What every container of ours may do, which is nothing that restricted forbids. */}}
{{- define "aegrail.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "aegrail.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Flags of each engine's serve, a list. Control adds what injection decides. */}}
{{- define "aegrail.engineArgs" -}}
{{- with .Values.audit }}
- --audit-durability={{ .durability }}
- --audit-rotate-size={{ .rotateSize }}
{{- if .keep }}
- --audit-keep={{ .keep }}
{{- end }}
{{- range .anchors }}
- {{ printf "--audit-anchor=%s" . | quote }}
{{- end }}
{{- range .sinks }}
- {{ printf "--audit-sink=%s" . | quote }}
{{- end }}
{{- end }}
- --log-level={{ .Values.engine.logLevel }}
- --log-format=json
{{- end }}

{{/* aegrail.bytes is a quantity in bytes; nothing for one in another notation. */}}
{{- define "aegrail.bytes" -}}
{{- $quantity := kindIs "string" . | ternary . (toString (int64 .)) -}}
{{- if regexMatch "^[0-9]+([.][0-9]+)?([KMGT]i|[kMGT])?$" $quantity -}}
{{- $number := regexFind "^[0-9.]+" $quantity -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (float64 $number) (get $units (trimPrefix $number $quantity)) | int64 -}}
{{- end -}}
{{- end }}

{{/* aegrail.memoryLimit is nine tenths of a quantity in bytes, for GOMEMLIMIT; nothing for one in another notation. */}}
{{- define "aegrail.memoryLimit" -}}
{{- with include "aegrail.bytes" . }}{{ mulf (float64 .) 0.9 | int64 }}{{ end -}}
{{- end }}
