plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "org.shufflelite.app"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.shufflelite.app"
        minSdk = 24 // what LiteRT asks for
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
    }
}

dependencies {
    implementation(libs.litert)
    testImplementation(libs.junit)
}
