"""ResNet-FPN, normalisation, layers and losses, in ``keras.ops`` alone and with static shapes."""
