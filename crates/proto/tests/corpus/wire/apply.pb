

a.yaml	kind: Key