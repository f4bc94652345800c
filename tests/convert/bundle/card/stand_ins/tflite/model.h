#include "tflite/interpreter.h"
