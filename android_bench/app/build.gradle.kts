plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.android) apply false // its version only: AGP 9 compiles Kotlin itself
}
