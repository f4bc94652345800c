package org.tensorflow.lite;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Records its input and returns the output that was set. */
public final class Interpreter implements AutoCloseable {
    public static byte[] input;
    public static byte[] output;

    public Interpreter(ByteBuffer model) {
        check(model);
    }

    public void run(Object input, Object output) {
        ByteBuffer source = (ByteBuffer) input;
        ByteBuffer result = (ByteBuffer) output;
        check(source);
        check(result);
        Interpreter.input = new byte[source.capacity()];
        source.duplicate().clear().get(Interpreter.input);
        result.put(Interpreter.output);
        if (result.hasRemaining()) {
            throw new IllegalArgumentException("the output is larger than the network's");
        }
    }

    @Override
    public void close() {}

    private static void check(ByteBuffer buffer) {
        if (!buffer.isDirect() || buffer.order() != ByteOrder.nativeOrder()) {
            throw new IllegalArgumentException("expected a direct buffer in native order");
        }
    }
}
