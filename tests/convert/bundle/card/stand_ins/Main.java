import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import org.tensorflow.lite.Interpreter;

/** Runs case0.Classifier and so on: the folder with their files, and how many there are. */
public final class Main {
    public static void main(String[] words) throws Exception {
        Path folder = Path.of(words[0]);
        int[] argb = new int[(int) Files.size(folder.resolve("argb")) / 4];
        ByteBuffer.wrap(Files.readAllBytes(folder.resolve("argb"))).asIntBuffer().get(argb);
        for (int number = 0; number < Integer.parseInt(words[1]); number++) {
            Class<?> type = Class.forName("case" + number + ".Classifier");
            Interpreter.output = Files.readAllBytes(folder.resolve(number + ".output"));
            Object classifier = type.getConstructor(byte[].class).newInstance(new byte[] {1, 2, 3});
            Object values = type.getMethod("classify", int[].class).invoke(classifier, argb);
            ByteBuffer bytes = ByteBuffer.allocate(4 * ((float[]) values).length);
            bytes.order(ByteOrder.nativeOrder()).asFloatBuffer().put((float[]) values);
            Files.write(folder.resolve(number + ".input"), Interpreter.input);
            Files.write(folder.resolve(number + ".values"), bytes.array());
            ((AutoCloseable) classifier).close();
        }
    }
}
