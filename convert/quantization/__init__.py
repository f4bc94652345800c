"""Quantization of the deployment form: calibration, fake quantization, training in int8."""
