"""The theory, executable: toys with closed forms, the sharpness-reduction flow, its pictures, its checks."""
